"""Run programs of this folder one after another in one process, as `python PROGRAM ARGUMENTS...` runs each in its own.

TensorFlow runs operation by operation here: to compile a network takes longer than these small ones take to train.

Usage: run.py JSON, a list of lists [program, argument, ...]. Ends with the number of those that failed.
"""

import json
import os
import runpy
import sys
import traceback

import keras
import matplotlib.pyplot as plt

FOLDER = os.path.dirname(os.path.abspath(__file__))


def main(command_lines):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
    failed = 0
    for command_line in command_lines:
        print("\n$", *command_line, flush=True)
        sys.argv = [os.path.join(FOLDER, command_line[0]), *command_line[1:]]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except (Exception, SystemExit):
            failed += 1
            traceback.print_exc(file=sys.stdout)
        plt.close("all")
        keras.utils.clear_session()
    return failed


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
