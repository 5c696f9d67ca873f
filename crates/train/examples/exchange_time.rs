//! How long processes take to exchange numbers, by how many: `mpirun -n 2 exchange_time`. `scripts/mpi_hosts.sh` runs
//! it on machines that it makes up.

#![allow(clippy::print_stdout, reason = "an example prints what it measures")]

use std::error::Error;

use dualenc_train::Processes;
use dualenc_train::internals::time_exchanges;

fn main() -> Result<(), Box<dyn Error>> {
    let processes = Processes::join()?;
    let most: u32 = std::env::args().nth(1).map_or(Ok(24), |most| most.parse())?;
    for values in (0..=most).step_by(4).map(|power| 1_usize << power) {
        let calls = if values > 1 << 18 { 3 } else { 50 };
        let Some((ranks, [gather, sum])) = time_exchanges(&processes, values, calls)? else {
            println!("one process exchanges nothing");
            return Ok(());
        };
        if processes.is_first() {
            let [gather, sum] = [gather, sum].map(|time| 1000.0 * time.as_secs_f64());
            println!("{ranks} processes, {:>11} bytes each: gather {gather:9.3} ms, sum {sum:9.3} ms", 4 * values);
        }
    }
    Processes::leave(|| ());
    Ok(())
}
