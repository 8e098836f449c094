"""The telemetry bus: leaves the training path at once, reaches Redis Streams later."""

from oona.bus import Bus as Bus
from oona.outbox.damage import damage as damage
from oona.outbox.outbox import Ledger as Ledger
from oona.outbox.outbox import ledger as ledger
from oona.publishing.drain import drain as drain
from oona.reading.admission import Gap as Gap
from oona.reading.envelopes import Envelopes as Envelopes
from oona.reading.reader import count_delivered as count_delivered
from oona.reading.reader import read as read
from oona.servers.credentials import check_access as check_access
from oona.statistics import BusStatistics as BusStatistics
from oona.streams.transport import ServerError as ServerError
