//! What a program's first bytes say about the machine that it is for, and about how long it has to be.

use kit::{
    arch::{ARCHES, ByteOrder},
    record::Program,
};
use object::{
    Endian, Endianness, FileKind, LittleEndian,
    elf::{ET_CORE, ET_REL, FileHeader32, FileHeader64},
    pe::{ImageDosHeader, ImageNtHeaders32, ImageNtHeaders64},
    read::{elf::FileHeader, pe::ImageNtHeaders},
};

/// How much of a file is enough for its header, and for a script's first line.
pub(crate) const HEADER_BYTES: usize = 4096;

/// Reads the ELF or PE header at the beginning of a file called `path`; nothing if it has none. Libraries have one;
/// object files, kernel modules and core dumps are no programs.
#[must_use]
pub fn program_header(path: &str, bytes: &[u8]) -> Option<Program> {
    match FileKind::parse(bytes).ok()? {
        FileKind::Elf32 => elf(path, FileHeader32::<Endianness>::parse(bytes).ok()?),
        FileKind::Elf64 => elf(path, FileHeader64::<Endianness>::parse(bytes).ok()?),
        FileKind::Pe32 => pe::<ImageNtHeaders32>(path, bytes),
        FileKind::Pe64 => pe::<ImageNtHeaders64>(path, bytes),
        _ => None,
    }
}

/// How many bytes the ELF file has to have that begins like this: to the end of its tables of sections and segments,
/// which linkers write last. Nothing for other files.
pub(crate) fn least_size(bytes: &[u8]) -> Option<u64> {
    match FileKind::parse(bytes).ok()? {
        FileKind::Elf32 => tables_end(FileHeader32::<Endianness>::parse(bytes).ok()?),
        FileKind::Elf64 => tables_end(FileHeader64::<Endianness>::parse(bytes).ok()?),
        _ => None,
    }
}

fn tables_end<H: FileHeader<Endian = Endianness>>(header: &H) -> Option<u64> {
    let endian = header.endian().ok()?;
    let end = |offset: u64, count: u16, size: u16| offset.saturating_add(u64::from(count) * u64::from(size));
    let sections = end(header.e_shoff(endian).into(), header.e_shnum(endian), header.e_shentsize(endian));
    let segments = end(header.e_phoff(endian).into(), header.e_phnum(endian), header.e_phentsize(endian));
    Some(sections.max(segments))
}

fn elf<H: FileHeader<Endian = Endianness>>(path: &str, header: &H) -> Option<Program> {
    let endian = header.endian().ok()?;
    if [ET_REL, ET_CORE].contains(&header.e_type(endian)) {
        return None;
    }
    let number = header.e_machine(endian).0;
    let class = if header.is_type_64() { 64 } else { 32 };
    let byte_order = if endian.is_big_endian() { ByteOrder::Big } else { ByteOrder::Little };
    let row = ARCHES.iter().find(|row| (row.elf_machine, row.elf_class, row.byte_order) == (number, class, byte_order));
    Some(program(path, "elf", row.map(|row| row.go), number, class, byte_order))
}

fn pe<H: ImageNtHeaders>(path: &str, bytes: &[u8]) -> Option<Program> {
    let mut offset = ImageDosHeader::parse(bytes).ok()?.nt_headers_offset().into();
    let (headers, _) = H::parse(bytes, &mut offset).ok()?;
    let number = headers.file_header().machine.get(LittleEndian).0;
    let class = if headers.is_type_64() { 64 } else { 32 };
    let row = ARCHES.iter().find(|row| row.pe_machine == Some(number));
    Some(program(path, "pe", row.map(|row| row.go), number, class, ByteOrder::Little))
}

fn program(path: &str, format: &str, go: Option<&str>, number: u16, class: u8, byte_order: ByteOrder) -> Program {
    let machine = go.map_or_else(|| number.to_string(), String::from);
    Program { path: path.into(), format: format.into(), machine, class, byte_order }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The 64 bytes that begin an ELF file of class 64, or the 52 of class 32.
    pub(crate) fn elf_bytes(machine: u16, class: u8, byte_order: ByteOrder) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let little = byte_order == ByteOrder::Little;
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class / 32, if little { 1 } else { 2 }, 1]);
        let put = |bytes: &mut Vec<u8>, at: usize, value: u16| {
            bytes[at..at + 2].copy_from_slice(&if little { value.to_le_bytes() } else { value.to_be_bytes() });
        };
        put(&mut bytes, 16, 2);
        put(&mut bytes, 18, machine);
        let version = if little { [1, 0, 0, 0] } else { [0, 0, 0, 1] };
        bytes[20..24].copy_from_slice(&version);
        bytes
    }

    #[test]
    fn every_row_of_the_table_is_recognised() {
        for row in ARCHES {
            let bytes = elf_bytes(row.elf_machine, row.elf_class, row.byte_order);
            let found = program_header("/x", &bytes).unwrap();
            assert_eq!(
                (found.machine.as_str(), found.class, found.byte_order),
                (row.go, row.elf_class, row.byte_order)
            );
        }
    }

    #[test]
    fn byte_order_tells_ppc64_from_ppc64le() {
        let machine = |order| program_header("/x", &elf_bytes(21, 64, order)).unwrap().machine;
        assert_eq!((machine(ByteOrder::Big).as_str(), machine(ByteOrder::Little).as_str()), ("ppc64", "ppc64le"));
        assert_eq!(program_header("/x", &elf_bytes(999, 64, ByteOrder::Big)).unwrap().machine, "999");
    }

    #[test]
    fn this_test_program_is_for_this_machine() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = program_header("/x", &bytes[..HEADER_BYTES]).unwrap();
        assert_eq!(found.machine, kit::Arch::host().go);
        let least = least_size(&bytes[..HEADER_BYTES]).unwrap();
        // What is cut off in the middle lacks the table of sections.
        assert!(least <= bytes.len() as u64 && least > bytes.len() as u64 / 2, "{least}");
    }

    #[test]
    fn object_files_are_no_programs() {
        for (kind, good) in [(1, false), (2, true), (3, true), (4, false)] {
            let mut bytes = elf_bytes(62, 64, ByteOrder::Little);
            bytes[16] = kind;
            assert_eq!(program_header("/x", &bytes).is_some(), good, "{kind}");
        }
    }

    #[test]
    fn windows_programs_are_recognised() {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x84..0x86].copy_from_slice(&0xaa64_u16.to_le_bytes());
        bytes[0x94..0x96].copy_from_slice(&240_u16.to_le_bytes());
        bytes[0x98..0x9a].copy_from_slice(&0x20b_u16.to_le_bytes());
        let found = program_header("x.exe", &bytes).unwrap();
        assert_eq!((found.format.as_str(), found.machine.as_str(), found.class), ("pe", "arm64", 64));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), magic in 0..4) {
            let mut bytes = bytes;
            let magic: &[u8] = [&b""[..], b"\x7fELF\x02\x01", b"\x7fELF\x01\x02", b"MZ"][magic as usize];
            bytes.splice(..magic.len().min(bytes.len()), magic.iter().copied());
            let _ = (program_header("/x", &bytes), least_size(&bytes));
        }
    }
}
