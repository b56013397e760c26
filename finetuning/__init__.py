"""What finetune.py does besides its command line, around the lesson of training_1.py.

What is where, each file using only those above it:
    data.py               examples, and what is wrong with them
    settings.py           the folder of a training and what it was started with
    adapter.py            LoRA in PEFT's files, and checkpoints with what was learned inside
    fused.py              LoRA and norms in fewer operations
    memory.py             frozen 16-bit layers, features computed once, recomputation, what is needed
    report.py             tokens in color, right and wrong, the curve, before and after
    state.py              what an interrupted training goes on with
    learner.py            the model that is being taught
    session.py            a training from its start to its end
    make_everything.py    draws the shipped set, everything/
"""
