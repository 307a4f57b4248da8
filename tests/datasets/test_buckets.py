"""Buckets: the rule's own sizes, crops inside the image and of the bucket's shape, nothing enlarged."""

import random

import pytest

from studio.datasets.rows import Bucket, assign_bucket, buckets_for, step_of


@pytest.mark.parametrize("resolution", [64, 128, 256, 512, 768, 1024])
def test_every_bucket_keeps_the_rule(resolution: int) -> None:
    step, buckets = step_of(resolution), buckets_for(resolution)
    assert Bucket(resolution, resolution) in buckets
    for bucket in buckets:
        assert bucket.width % step == bucket.height % step == 0
        assert bucket.width * bucket.height <= resolution**2
        assert Bucket(bucket.height, bucket.width) in buckets


def test_the_buckets_of_512_are_the_known_ones() -> None:
    sizes = {(bucket.width, bucket.height) for bucket in buckets_for(512) if bucket.width <= bucket.height}
    assert {(512, 512), (448, 576), (384, 640), (320, 768), (256, 1024)} <= sizes


def test_crops_lie_inside_and_have_the_buckets_shape() -> None:
    rng = random.Random(3)
    for resolution in (128, 512):
        buckets = buckets_for(resolution)
        for _ in range(2000):
            width, height = rng.randint(16, 4000), rng.randint(16, 4000)
            fit = assign_bucket(width, height, buckets)
            left, top, right, bottom = fit.crop
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert abs((left + right) - width) <= 1
            assert abs((top + bottom) - height) <= 1
            if not fit.too_small:
                assert fit.bucket in buckets
                scale = (right - left) / fit.bucket.width
                assert abs((bottom - top) - fit.bucket.height * scale) <= 1 + fit.bucket.height / fit.bucket.width
            assert fit.bucket.width <= max(8, width)
            assert fit.bucket.height <= max(8, height)


def test_a_moved_crop_keeps_its_size_inside_the_image() -> None:
    rng = random.Random(4)
    for _ in range(500):
        width, height = rng.randint(16, 4000), rng.randint(16, 4000)
        centred = assign_bucket(width, height, buckets_for(512))
        left, top, right, bottom = centred.crop
        focus = (rng.random(), rng.random())
        moved = assign_bucket(width, height, buckets_for(512), focus=focus)
        assert moved.bucket == centred.bucket
        x, y = moved.crop[:2]
        assert moved.crop == (x, y, x + right - left, y + bottom - top)
        assert 0 <= x <= width - (right - left)
        assert 0 <= y <= height - (bottom - top)
        wanted = focus[0] * width - (right - left) / 2
        assert abs(x - min(max(0, wanted), width - (right - left))) <= 1


def test_the_nearest_shape_is_taken() -> None:
    buckets = buckets_for(512)
    assert assign_bucket(2000, 2000, buckets).bucket == Bucket(512, 512)
    assert assign_bucket(1500, 2000, buckets).bucket == Bucket(448, 576)
    assert assign_bucket(1920, 1080, buckets).bucket == Bucket(640, 384)


def test_a_small_picture_is_not_enlarged_and_it_is_said() -> None:
    fit = assign_bucket(60, 80, buckets_for(512))
    assert fit.too_small
    assert (fit.bucket.width, fit.bucket.height) <= (60, 80)
    assert fit.bucket.width % 8 == fit.bucket.height % 8 == 0
    assert not assign_bucket(512, 512, buckets_for(512)).too_small
