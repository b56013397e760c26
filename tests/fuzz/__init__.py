"""Spoilt checkpoints, pictures and command lines, thousands of them, given to inference.py.

    python -m tests.fuzz --cases 60                 every kind, that many of each
    python -m tests.fuzz.configs --cases 10000      one kind; also tokenizer_files, prompt_files, heads,
                                                   pictures, commands
    python -m tests.fuzz.configs --case 4711        one case, and all that the program wrote

Each case is made from the seed and its number alone, so that what was found can be tried again. Whatever
the program is given, it has to end within ten seconds: with an answer and exit code 0, or with one line
that says what is wrong and exit code 2. Where only settings of the tokenizer or prompts.json were spoilt, the
answer must be the unspoilt checkpoint's.
"""
