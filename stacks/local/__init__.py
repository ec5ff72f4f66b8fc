"""
Holdfast on a laptop: an embedded AWS, and beside it the little that the embedded AWS does not do.

    profile       what a template asks for that this engine drops or gets wrong
    environment   the engine's own virtual environment
    processes     who a process is, who holds a port, how a process is ended
    engine        the embedded AWS as a child process
    dispatcher    DynamoDB streams to functions, with the promises of an event source mapping
    patterns      which stream records a function wants
    sweeper       rows past their time-to-live
    settings      table settings that the engine's CloudFormation forgets
    gateway       one stable loopback address per service
    running       `run.json`: what runs, and where
    stack         the supervisor of all of these

Everything but `engine` uses public AWS APIs only, and so works beside any engine.
"""
