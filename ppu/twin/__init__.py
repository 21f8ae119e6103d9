"""The twin: a lab file run with its simulators, and labs opened on any target."""
