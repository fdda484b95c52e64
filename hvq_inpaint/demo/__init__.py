"""The page in the browser: paint over part of a photograph, have it filled, see every stage of how.

Read in this order: `limits`, what a visitor may ask for; `photographs`, what the browser sends and gets; `stages`,
every stage as a picture with a sentence and figures; `fills`, the models and their work, step by step; `history`, the
versions of a photograph that is filled again and again; `layout`, what is where; `api`, what programs call; `page`,
what a click does; `housekeeping`, how long files are kept. Importing it needs Gradio, which the rest of the package
does not.
"""

from .housekeeping import visitors_folder
from .limits import Limits
from .page import build, launch

__all__ = ["Limits", "build", "launch", "visitors_folder"]
