"""Stands between a plug-in of a test and the catalogue of that test."""

from __future__ import annotations

from kasmina.blueprints import Blueprint, Catalogue

catalogue = Catalogue()


def add(blueprint: Blueprint) -> None:
    catalogue.register(blueprint)
