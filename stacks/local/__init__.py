"""
Holdfast on a laptop: an embedded AWS, and beside it the little that the embedded AWS does not do.

    profile       what a template asks for that this engine drops or gets wrong
    environment   the engine's own virtual environment
    engine        the embedded AWS as a child process
    dispatcher    DynamoDB streams to functions, with the promises of an event source mapping
    delivery      what follows when a function has answered (pure)
    patterns      which stream records a function wants (pure)
    ticker        functions that are invoked at a rate
    sweeper       rows past their time-to-live
    forgetter     logs that are old
    settings      settings of tables and buckets that the engine's CloudFormation forgets
    gateway       one stable loopback address per service
    deployment    what is deployed
    supervisor    all of these in one process, from the first to the last
    stack         up, down, status, reset: what the command line calls
    running       `run.json`: what runs, and where

and under them `processes`, `locks`, `files`, `clients`, `health`, `errors`.

Everything but `engine` uses public AWS APIs only, and so works beside any engine.
"""
