"""AutoAttack on a defended module, told in RobustBench's fields, and why its leaderboard would not take it.

pip install 'quasinat[interop]' && python examples/interop/robustbench_fields.py
"""

import json

from small import small

from quasinat.interop import benchmark

defended, images, labels = small()
found = benchmark(defended, images[:4], labels[:4], name="ten photographs", dataset="photographs", architecture="VGG")
print(json.dumps(found, indent=1))
