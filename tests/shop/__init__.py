"""An app of a project, whose migration writes a rule."""
