"""formats/: BMP, TIFF, QOI and PNM in their variants, and orientation in EXIF and XMP, with the RGB pixels by Pillow.

The expected pixels are those of `decode.expected`: orientation, transparency on white, `convert("RGB")`; grey of more
than 8 bits is round(value / 257). What Pillow does not write is put together here byte by byte. Every file decodes
exactly, except JPEG data, named `jpeg_*`.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from .common import generator, save_tensors
from .decode import HEIGHT, WIDTH, alpha_ramp, expected, orientation, smooth
from .pictures import noise_picture

SHORT, LONG = 3, 4


def bmp(header: bytes, palette: bytes, pixels: bytes) -> bytes:
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels


def bmp_info(bits: int, compression: int, size: int, colors: int = 0, height: int = HEIGHT) -> bytes:
    return struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, size, 2835, 2835, colors, 0)


def rows(values: np.ndarray, bits: int, pad: int = 4) -> bytes:
    """Rows from the bottom to the top, packed and padded as in BMP."""
    packed = b""
    for row in values[::-1]:
        line = np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].reshape(-1)).tobytes()
        packed += line + bytes(-len(line) % pad)
    return packed


def rle8(indices: np.ndarray) -> bytes:
    """Runs, literals, an end of each line, and an end of the image."""
    out = b""
    for row in indices[::-1]:
        out += bytes([5, row[0]]) + bytes([0, WIDTH - 5]) + row[5:].tobytes() + bytes((WIDTH - 5) % 2) + b"\0\0"
    return out + b"\0\1"


def write_bmp(folder: Path) -> None:
    rgb = noise_picture("formats/bmp", WIDTH, HEIGHT)
    picture = Image.fromarray(rgb, "RGB")
    indexed = picture.quantize(16)
    indices = np.asarray(indexed).astype(np.uint8)
    colors = np.array(indexed.getpalette()[:48], np.uint8).reshape(-1, 3)
    palette = np.concatenate([colors[:, ::-1], np.zeros((16, 1), np.uint8)], axis=1).tobytes()
    picture.save(folder / "rgb.bmp")
    picture.convert("L").save(folder / "grey.bmp")
    picture.convert("1").save(folder / "bits1.bmp")
    picture.quantize(200).save(folder / "palette8.bmp")
    picture.save(folder / "no_file_header.dib")
    (folder / "palette4.bmp").write_bytes(bmp(bmp_info(4, 0, 0, 16), palette, rows(indices, 4)))
    two = (indices % 2).astype(np.uint8)
    (folder / "palette1.bmp").write_bytes(bmp(bmp_info(1, 0, 0, 2), palette[8:16], rows(two, 1)))
    for row in indices:
        row[:5] = row[0]
    (folder / "rle8.bmp").write_bytes(bmp(bmp_info(8, 1, 0, 16), palette, rle8(indices)))
    # Two pixels to a byte; a run repeats both.
    rle4 = b"".join(
        bytes([6, row[0] << 4 | row[0]])
        + bytes([0, WIDTH - 6])
        + rows(row[None, 6:], 4, 1)
        + bytes(-(-(WIDTH - 6) // 2) % 2)
        + b"\0\0"
        for row in [np.concatenate([row[:1].repeat(6), row[6:]]) for row in indices[::-1]]
    )
    (folder / "rle4.bmp").write_bytes(bmp(bmp_info(4, 2, 0, 16), palette, rle4 + b"\0\1"))
    five = (rgb >> 3).astype(np.uint16)
    pixels555 = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    pixels565 = (five[..., 0] << 11 | (rgb[..., 1] >> 2).astype(np.uint16) << 5 | five[..., 2]).astype("<u2")
    line = lambda values: b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in values[::-1])
    (folder / "rgb555.bmp").write_bytes(bmp(bmp_info(16, 0, 0), b"", line(pixels555)))
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    (folder / "rgb565.bmp").write_bytes(bmp(bmp_info(16, 3, 0), masks, line(pixels565)))
    alpha = alpha_ramp()
    bgra = np.concatenate([rgb[..., ::-1], alpha], axis=2)
    (folder / "rgbx.bmp").write_bytes(bmp(bmp_info(32, 0, 0), b"", bgra[::-1].tobytes()))
    top_down = bmp_info(24, 0, 0, height=-HEIGHT)
    (folder / "top_down.bmp").write_bytes(bmp(top_down, b"", line(rgb[::-1, :, ::-1].reshape(HEIGHT, -1))))
    version4 = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, 0, 2835, 2835, 0, 0)
    version4 += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    (folder / "rgba.bmp").write_bytes(bmp(version4, b"", bgra[::-1].tobytes()))
    core = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    (folder / "os2.bmp").write_bytes(bmp(core, b"", line(rgb[..., ::-1].reshape(HEIGHT, -1))))


def tiff(tags: dict, strips: list[bytes], tiled: bool = False) -> bytes:
    """A little-endian TIFF of one page: `tags` has numbers or lists of numbers."""
    offsets = []
    at = 8
    for strip in strips:
        offsets.append(at)
        at += len(strip)
    tags = {256: WIDTH, 257: HEIGHT, **tags}
    tags[324 if tiled else 273] = offsets
    tags[325 if tiled else 279] = [len(strip) for strip in strips]
    extra_at = at + 2 + 12 * len(tags) + 4
    entries = extra = b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        kind, letter = (SHORT, "H") if max(values) < 65536 and tag not in (273, 324) else (LONG, "I")
        packed = struct.pack(f"<{len(values)}{letter}", *values)
        entries += struct.pack("<HHI", tag, kind, len(values))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", extra_at + len(extra))
            extra += packed + bytes(len(packed) % 2)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", at) + b"".join(strips) + directory + extra


def packed(values: np.ndarray, bits: int) -> bytes:
    return rows(values[::-1], bits, 1)


def write_tiff(folder: Path) -> None:
    rgb = noise_picture("formats/tiff", WIDTH, HEIGHT)
    picture = Image.fromarray(rgb, "RGB")
    grey, alpha = rgb[..., 0], alpha_ramp()
    rgba = np.concatenate([rgb, alpha], axis=2)
    sixteen = generator("formats/grey16").integers(0, 65536, (HEIGHT, WIDTH)).astype("<u2")
    cmyk = Image.fromarray(np.concatenate([rgb, grey[..., None] // 2], axis=2), "CMYK")
    picture.save(folder / "rgb.tif")
    picture.save(folder / "lzw.tif", compression="tiff_lzw")
    picture.save(folder / "deflate.tif", compression="tiff_adobe_deflate")
    picture.save(folder / "packbits.tif", compression="packbits")
    picture.save(folder / "predictor.tif", compression="tiff_lzw", tiffinfo={317: 2})
    picture.save(folder / "big.tif", big_tiff=True)
    Image.fromarray(rgba, "RGBA").save(folder / "rgba.tif")
    Image.fromarray(rgba, "RGBA").save(folder / "rgba_lzw.tif", compression="tiff_lzw")
    Image.fromarray(grey, "L").save(folder / "grey.tif")
    Image.fromarray(np.stack([grey, alpha[..., 0]], axis=2), "LA").save(folder / "grey_alpha.tif")
    Image.fromarray(sixteen).save(folder / "grey16.tif")
    picture.convert("1").save(folder / "bits1.tif")
    picture.convert("1").save(folder / "group4.tif", compression="group4")
    picture.quantize(200).save(folder / "palette8.tif")
    cmyk.save(folder / "cmyk.tif")
    cmyk.save(folder / "cmyk_deflate.tif", compression="tiff_adobe_deflate")
    second = Image.fromarray(rgb[::-1], "RGB")
    picture.save(folder / "pages.tif", save_all=True, append_images=[second])
    soft = Image.fromarray(smooth("formats/jpeg", 3), "RGB")
    soft.save(folder / "jpeg_ycbcr.tif", compression="jpeg", quality=95)
    soft.convert("L").save(folder / "jpeg_grey.tif", compression="jpeg", quality=95)
    for value in range(2, 9):
        picture.save(folder / f"orientation_{value}.tif", tiffinfo={274: value})

    grey4, grey2 = grey >> 4, grey >> 6
    for bits, values in ((4, grey4), (2, grey2)):
        tags = {258: bits, 259: 1, 262: 1, 277: 1}
        (folder / f"grey_bits{bits}.tif").write_bytes(tiff(tags, [packed(values, bits)]))
        tags[262] = 0
        (folder / f"white_is_zero{bits}.tif").write_bytes(tiff(tags, [packed(values, bits)]))
        colors = generator(f"formats/palette{bits}").integers(0, 65536, 3 << bits).tolist()
        tags = {**tags, 262: 3, 320: colors}
        (folder / f"palette{bits}.tif").write_bytes(tiff(tags, [packed(values, bits)]))
    (folder / "white_is_zero8.tif").write_bytes(tiff({258: 8, 259: 1, 262: 0, 277: 1}, [grey.tobytes()]))
    colour = {258: [8, 8, 8], 259: 1, 262: 2, 277: 3}
    planes = [rgb[..., channel].tobytes() for channel in range(3)]
    (folder / "planar.tif").write_bytes(tiff({**colour, 278: HEIGHT, 284: 2}, planes))
    strips = [rgb[at : at + 5].tobytes() for at in range(0, HEIGHT, 5)]
    (folder / "strips.tif").write_bytes(tiff({**colour, 278: 5}, strips))
    padded = np.zeros((32, 32, 3), np.uint8)
    padded[:HEIGHT, :WIDTH] = rgb
    tiles = [padded[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16)]
    (folder / "tiles.tif").write_bytes(tiff({**colour, 322: 16, 323: 16}, tiles, tiled=True))
    tiles = [zlib.compress(tile) for tile in tiles]
    (folder / "tiles_deflate.tif").write_bytes(tiff({**colour, 259: 8, 322: 16, 323: 16}, tiles, tiled=True))
    wide = generator("formats/rgb16").integers(0, 65536, (HEIGHT, WIDTH, 3)).astype("<u2")
    (folder / "rgb16.tif").write_bytes(tiff({**colour, 258: [16] * 3}, [wide.tobytes()]))
    four = {258: [8] * 4, 259: 1, 262: 2, 277: 4}
    (folder / "extra_ignored.tif").write_bytes(tiff({**four, 338: 0}, [rgba.tobytes()]))
    premultiplied = rgba.copy()
    premultiplied[..., :3] = rgba[..., :3].astype(np.uint16) * alpha // 255
    (folder / "associated.tif").write_bytes(tiff({**four, 338: 1}, [premultiplied.tobytes()]))
    (folder / "no_extra_samples.tif").write_bytes(tiff(four, [rgba.tobytes()]))


def write_qoi(folder: Path) -> None:
    rgb = smooth("formats/qoi", 3)
    rgb[4:9, 3:20] = rgb[4, 3]
    rgb[10:] = noise_picture("formats/qoi", WIDTH, HEIGHT)[10:]
    Image.fromarray(rgb, "RGB").save(folder / "rgb.qoi")
    Image.fromarray(np.concatenate([rgb, alpha_ramp()], axis=2), "RGBA").save(folder / "rgba.qoi")


def write_pnm(folder: Path) -> None:
    rgb = noise_picture("formats/pnm", WIDTH, HEIGHT)
    picture = Image.fromarray(rgb, "RGB")
    grey = rgb[..., 0]
    wide = generator("formats/pgm16").integers(0, 65536, (HEIGHT, WIDTH))
    size = f"{WIDTH} {HEIGHT}"
    picture.save(folder / "rgb.ppm")
    picture.convert("L").save(folder / "grey.pgm")
    picture.convert("1").save(folder / "bits.pbm")
    bits = (grey > 127).astype(np.uint8)
    (folder / "plain_tight.pbm").write_text(f"P1\n# made by hand\n{size}\n" + "\n".join("".join(map(str, row)) for row in bits))
    text = lambda values: "\n".join(" ".join(map(str, row)) for row in values.reshape(HEIGHT, -1))
    (folder / "plain.pgm").write_text(f"P2 {size} # of 8 bits\n255\n{text(grey)}\n")
    (folder / "plain.ppm").write_text(f"P3\n{WIDTH}\n{HEIGHT}\n255\n# all of it\n{text(rgb)}\n")
    (folder / "max15.pgm").write_bytes(f"P5\n{size}\n15\n".encode() + (grey >> 4).tobytes())
    (folder / "max100.ppm").write_bytes(f"P6 {size} 100\n".encode() + (rgb % 103).tobytes())
    (folder / "plain_max7.ppm").write_text(f"P3 {size} 7 {text(rgb >> 5)}")
    (folder / "max65535.pgm").write_bytes(f"P5\n{size}\n65535\n".encode() + wide.astype(">u2").tobytes())
    (folder / "max4095.pgm").write_bytes(f"P5\n{size}\n4095\n".encode() + (wide >> 4).astype(">u2").tobytes())
    deep = generator("formats/ppm16").integers(0, 65536, (HEIGHT, WIDTH, 3))
    (folder / "max65535.ppm").write_bytes(f"P6\n{size}\n65535\n".encode() + deep.astype(">u2").tobytes())


def xmp(value: int, element: bool = False) -> bytes:
    attribute = "" if element else f' tiff:Orientation="{value}"'
    inside = f"<tiff:Orientation>{value}</tiff:Orientation>" if element else ""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{attribute}>{inside}</rdf:Description></rdf:RDF>'
        "</x:xmpmeta>"
    ).encode()


def write_orientation(folder: Path) -> None:
    picture = Image.fromarray(noise_picture("formats/xmp", WIDTH, HEIGHT), "RGB")
    soft = Image.fromarray(smooth("formats/xmp", 3), "RGB")
    jpeg = {"quality": 95, "subsampling": 0}
    for value in range(2, 9):
        soft.save(folder / f"jpeg_xmp_{value}.jpg", xmp=xmp(value), **jpeg)
    soft.save(folder / "jpeg_xmp_element.jpg", xmp=xmp(6, element=True), **jpeg)
    soft.save(folder / "jpeg_xmp_9.jpg", xmp=xmp(9), **jpeg)
    soft.save(folder / "jpeg_exif_before_xmp.jpg", exif=orientation(3), xmp=xmp(6), **jpeg)
    soft.save(folder / "jpeg_exif_upright_before_xmp.jpg", exif=orientation(1), xmp=xmp(6), **jpeg)
    for name, compressed in (("xmp", False), ("xmp_compressed", True)):
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp(8).decode(), zip=compressed)
        picture.save(folder / f"{name}.png", pnginfo=info)
    after = (folder / "xmp.png").read_bytes()
    plain = folder / "after_pixels.png"
    picture.save(plain)
    # The same chunk behind the pixels, where exiftool may put it.
    start = after.index(b"iTXt") - 4
    chunk = after[start : start + 12 + int.from_bytes(after[start : start + 4], "big")]
    plain.write_bytes(plain.read_bytes()[:-12] + chunk + plain.read_bytes()[-12:])
    picture.save(folder / "xmp.webp", lossless=True, xmp=xmp(6))
    picture.save(folder / "exif.webp", lossless=True, exif=orientation(5))
    picture.save(folder / "xmp.tif", tiffinfo={700: xmp(6)})
    picture.quantize(16).save(folder / "xmp_ignored.gif", comment=xmp(6))


def write(folder: Path) -> None:
    write_bmp(folder)
    write_tiff(folder)
    write_qoi(folder)
    write_pnm(folder)
    write_orientation(folder)
    tensors = {path.name: expected(path) for path in sorted(folder.iterdir()) if path.suffix != ".safetensors"}
    turned = [name for name, pixels in tensors.items() if pixels.shape == (WIDTH, HEIGHT, 3)]
    assert len(turned) == 4 + 4 + 1 + 5 + 1, turned
    for name in ("lzw", "deflate", "packbits", "predictor", "big", "pages", "planar", "strips", "tiles", "tiles_deflate"):
        assert np.array_equal(tensors[f"{name}.tif"], tensors["rgb.tif"]), name
    save_tensors(folder / "expected.safetensors", tensors, {"axes": "height, width, channel"})
