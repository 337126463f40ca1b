"""Words and colours: what people type and what they read.

The only package that knows click and rich, the only one that ends the process, and the only one that turns errors into
sentences. Modules load when their command runs, so that ``alight --help`` costs little.
"""
