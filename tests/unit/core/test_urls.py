"""What is a URL, also after it went through `Path`, and what is the path of a file."""

from pathlib import Path

import pytest

from microsr.core.urls import url


@pytest.mark.parametrize("text", ["http://a.org/b.zarr", "HTTP://a.org/b.zarr/", "http:/a.org/b.zarr"])
def test_a_url_is_told_whatever_became_of_its_slashes(text):
    assert url(text) == url(Path(text)) == "http://a.org/b.zarr"


@pytest.mark.parametrize("text", ["a/b.zarr", "/http/b", "https", "ftp://a.org/b", "s3://bucket/b", "C:/b"])
def test_other_paths_are_no_url(text):
    assert url(text) is None
