"""The collector: a service beside a run that writes its events to a store."""

from oona.collecting.child import Child as Child
from oona.collecting.child import start_child as start_child
