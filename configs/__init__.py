"""The YAML files of qsmnet: one group a folder, one method a file."""
