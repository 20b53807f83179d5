"""What several methods share: bases of their options, losses, stores, networks, and parts of their loops.

Methods import from here, and nothing here imports a method.
"""
