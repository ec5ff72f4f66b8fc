"""
The command line: `./holdfast`.

One module per noun. What a command needs beyond the SDK (the stacks, boto3, tables) is imported inside
that command, so that `holdfast audit …` starts fast. What is meant for programs goes to stdout, and to
stdout goes nothing else; progress and errors go to stderr.
"""
