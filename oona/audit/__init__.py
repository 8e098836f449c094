"""The audit trail: every event kept for good, chained, searchable and fit for export."""

from oona.audit.catching_up import CaughtUp as CaughtUp
from oona.audit.catching_up import catch_up as catch_up
from oona.audit.export import export_events as export_events
from oona.audit.reader import find_gaps as find_gaps
from oona.audit.reader import known_seeds as known_seeds
from oona.audit.reader import read_trail as read_trail
from oona.audit.reader import verify_trail as verify_trail
from oona.audit.trail import FILE_NAME as FILE_NAME
from oona.audit.trail import AuditTrail as AuditTrail
