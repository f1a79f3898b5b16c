"""The compiled kernel of total-variation minimisation; `binding.py` calls it."""
