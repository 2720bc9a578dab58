"""The page about all losses, made from their docstrings."""

import inspect
import sys

from skd_cache.losses.fix import FIXES
from skd_cache.losses.loss import Loss
from skd_cache.losses.registry import LOSSES

_HEAD = """\
# Losses

<!-- Made from the docstrings: python -m skd_cache.losses > docs/losses.md -->

`z` are the student's logits, `t` the teacher's, both `[B, C]`, `y` labels `[B]` or soft labels
`[B, C]`, `T` a temperature. `KL(p ‖ q)` sums over classes and averages over the batch, and so does
`CE`. No gradient reaches the teacher; arithmetic is in float32 or better whatever the autocast
dtype. Every loss reads the same cache.

```
skd-cache distill --loss NAME[:key=value,...]   # repeat it: teacher terms add up, CE counts once
skd-cache distill --loss kd --teacher-fix swap  # correct the teacher in front of the losses
skd-cache distill --loss dkd --schedule-loss weight=0.05@0..1@19  # an option changes with epochs
```

```python
from skd_cache.losses import make

loss = make("dkd", temperature=4, beta=2)
loss(student_logits, teacher, labels)  # teacher: a LogitBatch of a cache, or a tensor [B, C]
```

`weight` multiplies the whole teacher term. [benchmarks.md](benchmarks.md) has what each loss costs.
"""

_SCHEDULES = """\
## Schedules

`--schedule-loss OPTION=VALUE@EPOCH,...` sets an option of every loss that has it: each value holds
from its epoch on, the first is 0. Two dots in place of a comma let it change evenly to the next:
`alpha=0.9@0,0.5@60,0.1@80` is that of the authors of `spherical`, `weight=0.05@0..1@19` the warm-up
of `dkd`.
"""


def page() -> str:
    """Markdown: a table of all losses, each one's formula, source and options, the corrections."""
    rows = [
        f"| [`{name}`](#{name}) | {_title(loss)} | {_soft(loss)} |" for name, loss in LOSSES.items()
    ]
    table = "\n".join(["| name | what it is | soft labels |", "| --- | --- | --- |", *rows])
    sections = [_section(name, loss) for name, loss in LOSSES.items()]
    return "\n".join([_HEAD, table + "\n", *sections, _corrections(), _SCHEDULES])


def _section(name: str, loss: type[Loss]) -> str:
    text = inspect.cleandoc(loss.__doc__ or "")
    return f"## {name}\n\n{_title(loss)}.\n\n{_markdown(text)}\n\n{_options(loss)}"


def _title(loss: type[Loss]) -> str:
    module = sys.modules[loss.__module__].__doc__ or ""
    return module.strip().splitlines()[0].rstrip(".")


def _soft(loss: type[Loss]) -> str:
    if "base" in loss.words:
        return "with `base=kd`"
    return "yes" if loss.soft_labels else "no"


def _options(loss: type[Loss]) -> str:
    lines = ["| option | default | values |", "| --- | --- | --- |"]
    for name, parameter in inspect.signature(loss).parameters.items():
        lines.append(f"| `{name}` | {_default(parameter.default)} | {_values(loss, name)} |")
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    if value is None:
        return "see above"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"


def _values(loss: type[Loss], option: str) -> str:
    words = [f"`{word}`" for word in loss.words.get(option, ())]
    if option in loss.ranges:
        low, high = loss.ranges[option]
        words.append(f"{low:g} to {high:g}")
    elif option in loss.counts:
        words.append("1, 2, …")
    elif not words:
        words.append("a matrix `[C, D]`; from Python only")
    return ", ".join(words)


def _corrections() -> str:
    lines = ["## Corrections of the teacher", ""]
    lines += ["They act on decoded logits, in the order given; the cache and its statistics stay."]
    for form, fix in FIXES.items():
        lines += ["", f"`--teacher-fix {form}`: {_markdown(inspect.cleandoc(fix.__doc__ or ''))}"]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    """A docstring's double backticks as Markdown's."""
    return text.replace("``", "`")
