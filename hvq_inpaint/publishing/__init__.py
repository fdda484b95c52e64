"""What goes to the Hub beside a network's own files: model folders with their cards, the Space, the mask set.

Each module makes the files of one kind of repository, in a folder, and an `Upload` of them; `hvq_inpaint.hub` sends it.
"""
