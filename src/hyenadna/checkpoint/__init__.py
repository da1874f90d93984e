"""Published layouts <-> ours: safe loading, whole saving.

load, load_with_report   a model from a folder, a file or a published name
save, convert            to disk, in the Hugging Face or the original layout
"""

from hyenadna.checkpoint.convert import convert
from hyenadna.checkpoint.load import LoadReport, load, load_with_report
from hyenadna.checkpoint.save import save

__all__ = ["LoadReport", "convert", "load", "load_with_report", "save"]
