"""The texts of plugins that work."""

from __future__ import annotations

import textwrap

GOOD = '''\
"""A module."""

from evolve.heuristics import heuristic, linear


@heuristic(role="baseline", source="Nowhere", parameters=[linear("edge", 0.1, 0.0, 0.5)])
def allocate(model, p):
    """The ends are FP32.

    And more.
    """
    return model.where(model.edge_distance < p.edge, "FP32", "FP16")
'''


CODE = """\
{#
role = "published"
source = "Somewhere"
summary = "The ends are FP32."

[slots.ends]
type = "mask"
default = 'model.edge_distance < p.x'

[slots.narrow]
type = "format"
default = "FP16"

[parameters.x]
default = 0.1

[parameters.depth]
default = 20
low = 5
high = 1000
scale = "log"
#}
def allocate(model, p):
    ends = {{ ends }}
    return model.where(ends | (model.depth < p.depth), "FP32", "{{ narrow }}")
"""


INSTANCE = """\
{#
summary = "A ladder."
template = "ladder"

[slots]
clauses = [
  ['model.edge_distance < p.edge', "FP32"],
  ["model.sensitivity(\\"FP16\\") > p.t", "FP32"],
]
otherwise = "FP16"

[parameters]
edge = 0.1
t = 0.001
#}
"""


def write(folder, name, text):
    file = folder / name
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


def changed(text, before, after):
    assert text.count(before) == 1
    return text.replace(before, after)
