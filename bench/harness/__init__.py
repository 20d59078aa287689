"""What the benches share: reports, load, an engine that answers at once, servers as processes.

Whoever imports it finds the repository's packages and `tests`: before bench/, whose trainer.py has a package's name.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
