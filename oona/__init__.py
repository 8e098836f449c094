"""The telemetry bus: leaves the training path at once, reaches Redis Streams later."""

from oona.bus import Bus as Bus
from oona.damage import damage as damage
from oona.envelopes import Envelopes as Envelopes
from oona.outbox import Ledger as Ledger
from oona.outbox import ledger as ledger
from oona.reader import count_delivered as count_delivered
from oona.reader import read as read
from oona.statistics import BusStatistics as BusStatistics
from oona.transport import ServerError as ServerError
from oona.url import check_url as check_url
