"""The same trials by AdapterHub's `adapters` and by this project, from nothing to the last accuracy."""
