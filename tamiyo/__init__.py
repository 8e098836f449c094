"""The controller: turns a boundary's state into a decision, within a deadline."""

from tamiyo.asking import AskedApart as AskedApart
from tamiyo.controller import Controller as Controller
from tamiyo.policies import PolicyKind as PolicyKind
from tamiyo.policies import policy_catalogue as policy_catalogue
from tamiyo.policies import register_policy as register_policy
from tamiyo.policies.heuristic import HeuristicPolicy as HeuristicPolicy
from tamiyo.policies.hold import HoldPolicy as HoldPolicy
from tamiyo.policies.random_choice import RandomPolicy as RandomPolicy
from tamiyo.policies.random_choice import RandomRules as RandomRules
from tamiyo.policies.schedule import SchedulePolicy as SchedulePolicy
from tamiyo.policies.schedule import ScheduleRules as ScheduleRules
from tamiyo.policy import Policy as Policy
from tamiyo.rules import HeuristicRules as HeuristicRules
from tamiyo.settling import SettlingRules as SettlingRules
from tamiyo.settling import settle as settle
from tamiyo.state import SeedRow as SeedRow
from tamiyo.state import State as State
from tamiyo.ungated import graft_tried as graft_tried
