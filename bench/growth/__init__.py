"""Evidence that growing pays: Esper, static networks and the peers on three tasks."""
