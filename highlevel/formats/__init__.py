"""Bytes to arrays and back, for every file format the library reads or writes. Nothing in a file is ever executed.

Each format is one module with `read` and, where we write it too, `write`:

* `torch_pickle` – PyTorch's `.pth`/`.pt` (zip and legacy) and TorchScript archives, read without PyTorch;
* `safetensors` – our own weight format, with checksums; also files of the `safetensors` package;
* `hdf5` – trees of groups, attributes and arrays (`.h5`, `.weights.h5`);
* `keras_archive` – the `.keras` container;
* `npz` – NumPy archives without pickles.

Three rules hold for all of them. A file is data: classes, functions, paths and links named inside it are never
resolved. Sizes are checked against what the file really holds *before* memory is allocated. And whatever is wrong
with a file, the caller sees one `FormatError` that names it; a file that is not there stays a `FileNotFoundError`.
Writers go through `atomic.replacing`, so that a crash leaves the old file or the new one, never half of one.
"""
