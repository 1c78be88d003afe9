"""Write docs/scale.md: what the paper's studies take at full size, every figure as the planner prints it.

python benchmarks/scale.py > docs/scale.md
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile

RATE, PRICE = "4e14", "3"
LINEAGES = f"refeed plan scale --flops {RATE} --price {PRICE}"
RESERVOIR = (
    f"""refeed plan scale --set 'policies=["accumulate","reservoir"]' --set seeds=1 --flops {RATE} --price {PRICE} --devices 1,2"""
)
SPREAD = f"refeed plan scale --flops {RATE} --price {PRICE} --set resources.fit.devices=8 --devices 8,64,128"
COMMANDS = {"lineages": LINEAGES, "reservoir": RESERVOIR, "spread": SPREAD}

PAGE = """# At full size

What the paper's four language models take on 470M tokens, and one of a billion parameters: operations, tokens, storage by policy,
time and cost. Nothing here is reckoned by hand. The blocks are what the planner prints for the shipped study `scale`; this page is
written by `python benchmarks/scale.py > docs/scale.md`, and a test runs the first command again and compares.

The text is given by its size alone (source `outline`: 2,119,719 stories, 470M tokens, 8000 different ones, as in the paper; its
test set is TinyStories' validation set, 21,990 stories). What a step takes follows from shapes
([`costs.py`](../src/refeed/families/language/costs.py)): with N weights that a token is multiplied by, width d and stories of L
tokens, training takes 6 N + 6 layers d L operations a token, sampling and scoring a third of it. Two bytes a token, four a weight,
before compression.

Two figures are assumptions and stand in the commands. A device does {rate} operations a second in every step: 40 % of the 989e12
that NVIDIA states for an H100 or H200 (dense bfloat16). Small networks reach less, and sampling far less; `refeed plan scale
--calibrate` measures the machine it runs on instead, each kind of step by itself, in about a minute where a step of the largest
model takes a second or so (on processors: minutes). And a device costs {price} an hour, in any currency.

## 40 lineages: five models, replace and accumulate, four seeds

    {lineages}

```
{lineages_output}```

Every model of generation 1 is fitted once for both policies. Under accumulate the n-th fit reads n times the rows, so the last fits
dominate, and a lineage of the largest model is the longest chain: beyond some devices more of them gain nothing as long as a fit
runs on one. With `--engine ray` the planner prints the graph of the steps too, with what each asks for.

## The same, each fit on eight devices

    {spread}

ends in

```
{spread_output}```

A fit on eight devices is taken to be eight times as fast: the best case, and not measured
([engines](engines.md#several-devices-in-one-fit)).

## Accumulate against a reservoir

    {reservoir}

```
{reservoir_output}```

A reservoir bounds what is kept, and with `rows = "needed"` the disk too; every fit then costs what the first one did.
"""


def output(command: str) -> str:
    """What `command` prints in an empty workspace."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*shlex.split(command)[1:], "--workspace", folder]
        program = [sys.executable, "-c", "from refeed.cli import main; main()", *words]
        printed = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    return "\n".join(line.rstrip() for line in printed.strip().splitlines()) + "\n"


def main() -> None:
    outputs = {f"{name}_output": output(command) for name, command in COMMANDS.items()}
    outputs["spread_output"] = outputs["spread_output"][outputs["spread_output"].index("Time, ") :]
    print(PAGE.format(rate=RATE, price=PRICE, **COMMANDS, **outputs), end="")


if __name__ == "__main__":
    main()
