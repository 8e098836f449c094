"""The report of a run: one HTML file that needs nothing else to be read."""

from tolaria.show.report.page import write as write
