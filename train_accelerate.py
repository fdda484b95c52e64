"""Train an HVQInpainter: `accelerate launch train_accelerate.py --stage all --dataset DATA --output OUTPUT`."""

import sys

from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.stopping import TrainingStopped
from hvq_inpaint.training.together import SharedError, processes, together
from hvq_inpaint.training.trainer import run


def main() -> int:
    try:
        with together():
            options = parse_options()
        run(options)
    except InvalidInputError as error:
        if processes().is_main_process or not isinstance(error, SharedError):
            print(f"error: {error}", file=sys.stderr)
        return 1
    except TrainingStopped as stopped:
        if processes().is_main_process:  # all of them stopped
            print(stopped, file=sys.stderr)
        return 128 + stopped.signal_number  # as a shell tells it
    return 0


if __name__ == "__main__":
    sys.exit(main())
