"""Everything that is tried."""

from tests.fuzz import answers
from tests.fuzz import checkpoints
from tests.fuzz import inputs
from tests.fuzz import method

SUBJECTS = {**method.SUBJECTS, **inputs.SUBJECTS, **checkpoints.SUBJECTS, **answers.SUBJECTS}
