"""Adapters in the files of other libraries: AdapterHub's `adapters` 1.3 and PEFT 0.21, both ways.

What the other side cannot express is refused, with the reason; `docs/interop.md` has the table, and
`make interop` compares the outputs. Only safetensors and JSON are read.
"""
