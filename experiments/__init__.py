"""The command line, one file per experiment, benchmarks, and the log of what was tried.

cli: The command line, `journeylab COMMAND`: from simulated journeys and training to serving and the
    reviewer's desk.
code_lines: Count the lines of code of the product.
demo: The whole way through the house on simulated journeys, by the commands that a user would type: `make
    demo`.
docs: Write what of the documentation is made from the code: docs/experiment_file.md, docs/commands.md.
readme_picture: Draw the README's picture from what `make demo` left behind: docs/pictures/demo.png and
    demo-dark.png.
warm_up: Compile every kernel once, into the user's cache, so that the first run does not wait: `make
    install` calls it.
"""
