"""The 3B model on a CPU without a GPU's help: fewer bytes to read, quicker products, the same modules.

The files that explain the model know nothing of this folder. Programs call `loading.load_model` instead
of load_weights.load_hf_model; it loads the same model and then puts other modules in the place of every
nn.Linear, of the reference's attention, and with int8 of the embedding table and the reference's MLP, in a
model of any set:

    --precision auto    Bf16Linear: the checkpoint's bfloat16 weights as they are, mapped
    --precision int8    Int8Linear: a whole number from -127 to 127 for each weight, a scale for each row

What to notice:
  - with int8, everything between the decoder's modules is float32: only weights and the products' inputs
    are rounded. The vision tower, which no token reads again, stays bfloat16 where that is quicker;
  - writing the answer waits for memory: every weight is read once for each token, so half the bytes
    are half the time. Reading the prompt waits for arithmetic: 262 rows share each weight;
  - which way of multiplying is the quickest differs from one CPU to the next by a factor of ten,
    so the first product of a size is timed in each of them, on parts of the matrix;
  - int8 weights are kept beside the checkpoint, so that they are made once;
  - after the last attention only the last position is read, so the last MLP works on that alone.

What is where, each file using only those above it:
    threads.py          how threads wait for each other; a program imports it before torch
    memory.py           freed memory is kept, mapped memory is mapped at once
    sharing.py          how the cores share what is cut into slices
    bf16_products.py    ways to multiply with bfloat16 weights
    int8_products.py    ways to multiply with int8 weights, and how numbers become int8
    quickest.py         which way to multiply is the quickest one here
    replacement.py      what those modules have in common that take another's place
    linear.py           the modules that take the place of nn.Linear, nn.Embedding and GemmaMLP
    attention.py        the modules that take the place of attention
    int8_file.py        the file that keeps the int8 weights
    loading.py          load_model: the door
    tower_once.py       several questions about one picture: the vision tower reads it once
"""
