"""The messages that Esper's parts exchange: frozen, tagged, and refused when a field is unknown.

Epochs and steps are counted from 1; 0 means "before the first". Losses and gains are in the unit
of the user's own loss. NaN in a float field means "not measured". Names of seeds are
"<site>/<number>": the number counts the places at that site.
"""
