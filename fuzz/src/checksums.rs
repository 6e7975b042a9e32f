//! The checksums of every kind of file, made right after the bytes have changed.
//!
//! Written from docs/format.md, and it shares nothing with the engine: where the bytes make no sense it gives up.

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put(bytes: &mut [u8], at: usize, crc: u32) {
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

fn crc(pieces: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

/// The last four bytes are a checksum of all before.
fn seal(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    let sum = crc(&[&bytes[..end]]);
    put(bytes, end, sum);
}

/// Repairs a file, whatever its first bytes say that it is.
pub fn repair(file: &mut [u8]) {
    if file.len() < 64 {
        return;
    }
    match &file[..8] {
        b"LOGMILLS" => segment(file),
        b"LOGMILLL" => seal(&mut file[..64]),
        b"LOGMILLI" => {
            let sum = crc(&[&file[..40], &file[44..]]);
            put(file, 40, sum);
        }
        b"LOGMILLC" | b"LOGMILLP" => {
            let sum = crc(&[&file[12..]]);
            put(file, 8, sum);
        }
        _ => file.chunks_exact_mut(4096).take(2).for_each(seal),
    }
}

/// Head, frames and footer.
fn segment(file: &mut [u8]) {
    if file.len() < 128 {
        return;
    }
    seal(&mut file[..128]);
    let seed: Vec<u8> = [&file[24..40], &file[48..52], &file[40..48]].concat();
    let mut at = 128;
    while at + 16 <= file.len() && file[at..at + 16] != [0; 16] {
        let Some(end) = (at + 16).checked_add(u32_at(file, at + 4) as usize) else { return };
        let head = crc(&[&seed, &file[at + 4..at + 14]]).to_le_bytes();
        file[at + 14..at + 16].copy_from_slice(&head[..2]);
        if end > file.len() {
            return;
        }
        let sum = crc(&[&seed, &file[at + 4..end]]);
        put(file, at, sum);
        at = end;
    }
    let footer = at.next_multiple_of(512);
    if file.get(footer..footer + 8) == Some(b"LOGMILLF") && file.len() >= footer + 128 {
        seal(&mut file[footer..footer + 128]);
    }
}
