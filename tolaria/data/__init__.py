"""The built-in data sets and the networks that `esper train` grows on them."""

from tolaria.data.classifier import Classifier as Classifier
from tolaria.data.datamodule import ArrayDataModule as ArrayDataModule
from tolaria.data.hosts import digits_host as digits_host
from tolaria.data.hosts import fashion_host as fashion_host
from tolaria.data.hosts import mnist1d_host as mnist1d_host
from tolaria.data.loader import EvalLoader as EvalLoader
from tolaria.data.loader import TrainLoader as TrainLoader
from tolaria.data.splits import Examples as Examples
from tolaria.data.splits import Splits as Splits
from tolaria.data.task import RECIPES as RECIPES
from tolaria.data.task import Task as Task
from tolaria.data.task import load as load
