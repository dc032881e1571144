"""Try every architecture that transformers builds as a causal LM: `python .docs/architectures.py`.

Each is built small and with random weights; both backends are compared with its eager attention. Writes
architectures.csv, from which the page is generated. Takes minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.conftest import saved_tokenizer
from tests.sinks.architectures import NotBuiltError, examine, names

transformers.logging.set_verbosity_error()


def main() -> None:
    tokenizer = saved_tokenizer("neox", Path(tempfile.mkdtemp()))
    rows = []
    for name in names():
        try:
            row = examine(name, tokenizer)
        except NotBuiltError as error:
            row = {"class": "", "tiled": str(error), "hooks": ""}
        except AssertionError as error:
            row = {"class": "", "tiled": f"WRONG {error}", "hooks": ""}
        rows.append({"architecture": name, **row})
        print(name, row["tiled"], row["hooks"], sep="; ", flush=True)
    table = pd.DataFrame(rows).assign(transformers=transformers.__version__)
    table.to_csv(Path(__file__).with_name("architectures.csv"), index=False)


if __name__ == "__main__":
    main()
