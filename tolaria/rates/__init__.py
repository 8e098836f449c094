"""Learning rates: one writer gives every grown seed a group, and a rate by its host group's."""

from tolaria.rates.controller import UnifiedLRController as UnifiedLRController
from tolaria.rates.optimizers import refuse_unfit as refuse_unfit
from tolaria.rates.rules import RateRule as RateRule
