"""The contract between Esper's parts: messages, lifecycle, limits, errors and the codec.

Imports neither torch nor numpy and does no I/O.
"""

from leyline import limits as limits
from leyline.codec import AnyMessage as AnyMessage
from leyline.codec import decode as decode
from leyline.codec import encode as encode
from leyline.codec import encode_into as encode_into
from leyline.errors import BlueprintError as BlueprintError
from leyline.errors import BusError as BusError
from leyline.errors import CheckpointError as CheckpointError
from leyline.errors import ConfigError as ConfigError
from leyline.errors import ContractError as ContractError
from leyline.errors import EsperError as EsperError
from leyline.errors import ExportError as ExportError
from leyline.errors import LifecycleError as LifecycleError
from leyline.errors import NonFiniteError as NonFiniteError
from leyline.errors import RunError as RunError
from leyline.errors import RunLockedError as RunLockedError
from leyline.errors import SiteError as SiteError
from leyline.errors import TrialError as TrialError
from leyline.lifecycle import GUARDS as GUARDS
from leyline.lifecycle import LIFECYCLE as LIFECYCLE
from leyline.lifecycle import TRANSITIONS as TRANSITIONS
from leyline.lifecycle import Evidence as Evidence
from leyline.lifecycle import Guard as Guard
from leyline.lifecycle import Stage as Stage
from leyline.lifecycle import StageRule as StageRule
from leyline.lifecycle import refusal as refusal
from leyline.lifecycle import validate as validate
from leyline.messages import COLUMN_FORMATS as COLUMN_FORMATS
from leyline.messages import PRIORITIES as PRIORITIES
from leyline.messages import VERSION as VERSION
from leyline.messages import Advance as Advance
from leyline.messages import BoundaryTiming as BoundaryTiming
from leyline.messages import Candidate as Candidate
from leyline.messages import Command as Command
from leyline.messages import Cull as Cull
from leyline.messages import Decision as Decision
from leyline.messages import Envelope as Envelope
from leyline.messages import EpochMetrics as EpochMetrics
from leyline.messages import Event as Event
from leyline.messages import Fault as Fault
from leyline.messages import FieldReport as FieldReport
from leyline.messages import Germinate as Germinate
from leyline.messages import Message as Message
from leyline.messages import Priority as Priority
from leyline.messages import RunEnded as RunEnded
from leyline.messages import RunStarted as RunStarted
from leyline.messages import Schema as Schema
from leyline.messages import Score as Score
from leyline.messages import SeedReport as SeedReport
from leyline.messages import SiteInfo as SiteInfo
from leyline.messages import StatePacket as StatePacket
from leyline.messages import StepMetrics as StepMetrics
