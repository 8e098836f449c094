"""The controller: turns a boundary's state into a decision, within a deadline."""

from tamiyo.controller import Controller as Controller
from tamiyo.heuristic import HeuristicPolicy as HeuristicPolicy
from tamiyo.policy import HoldPolicy as HoldPolicy
from tamiyo.policy import Policy as Policy
from tamiyo.rules import HeuristicRules as HeuristicRules
from tamiyo.schedule import SchedulePolicy as SchedulePolicy
from tamiyo.settling import SettlingRules as SettlingRules
from tamiyo.state import SeedRow as SeedRow
from tamiyo.state import State as State
