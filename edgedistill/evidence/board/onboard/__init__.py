"""What runs on the board: the text of these modules, sent to its `python3` over ssh, with a request behind it on stdin.

The standard library and the syntax of Python 3.5 alone, since it must start where the kit cannot, to say so. Nothing of
it is written there. A request is one line of JSON, and bytes of files behind it; a reply is lines of JSON, each behind
`talk.MARK`, so that what a login script prints is told apart. Names and paths are data here, never words of a shell.
"""
