"""What `esper init` writes: a commented config, and a script that runs as it is."""
