"""A model test: random outcomes of messages among random faults, and what must become of each.

``plan.py`` decides what the handler does in each run of each message, by a seed. The program in
``tests/programs/model.py`` does it, and ``journal.py`` keeps the record of each run. ``trial.py``
publishes, causes the faults and drains the queues; ``verdict.py`` compares what was found with
what the plan allows.
"""
