//! `image-build arch`: the table of architectures at the command line.

use kit::{Arch, Done, Output, Result, Ui, arch::ARCHES, ui};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Any of its names; all architectures without
    name: Option<String>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let rows: Vec<&Arch> = match &args.name {
        Some(name) => vec![Arch::find(name)?],
        None => ARCHES.iter().collect(),
    };
    match ui.output {
        Output::Json => ui.json(&rows)?,
        Output::Text => ui.result(&table(&rows))?,
    }
    Ok(Done::good())
}

fn table(rows: &[&Arch]) -> String {
    let head = ["GO/OCI", "VARIANT", "UNAME", "DEBIAN", "ALPINE", "QEMU", "RUST", "ELF", "PE"];
    let mut cells = vec![head.map(String::from).to_vec()];
    for row in rows {
        let order = if row.byte_order == kit::arch::ByteOrder::Big { "big" } else { "little" };
        let elf = format!("{} {} bit {order}", row.elf_machine, row.elf_class);
        let pe = row.pe_machine.map_or_else(|| "-".into(), |machine| format!("{machine:#06x}"));
        let names = [row.go, row.variant.unwrap_or("-"), row.uname, row.debian, row.alpine, row.qemu, row.rust];
        cells.push(names.map(String::from).into_iter().chain([elf, pe]).collect());
    }
    ui::table(&cells)
}
