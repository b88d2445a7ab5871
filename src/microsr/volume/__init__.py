"""A volume with its geometry, the working format, and arrays that read what is indexed."""
