//! Prints the public items of a library, one to a line, from the JSON that rustdoc writes of it: `.ci/public-api` runs this.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn Error>> {
    let json = std::env::args_os().nth(1).ok_or("which file of rustdoc's JSON?")?;
    let listing = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    Ok(write!(stdout(), "{listing}")?)
}
