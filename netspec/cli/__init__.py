"""The command ``netspec``: groups that know their verbs, and a module for each few verbs.

`main`, `data` and `caffe` name each verb's module and import none; a verb's module imports what it
needs at its top, every package if need be. Only `__main__` imports this package.
"""
