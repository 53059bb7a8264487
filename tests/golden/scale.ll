; ModuleID = "kernel"
target triple = "unknown-unknown-unknown"
target datalayout = ""

define void @"kernel"(ptr noalias %"args", ptr noalias %"scratch")
{
entry:
  %".4" = getelementptr i64, ptr %"args", i64 0
  %".5" = load i64, ptr %".4", align 8
  %"x.address" = inttoptr i64 %".5" to ptr
  %".6" = getelementptr i64, ptr %"args", i64 1
  %".7" = load i64, ptr %".6", align 8
  %".8" = getelementptr i64, ptr %"args", i64 2
  %".9" = load i64, ptr %".8", align 8
  %".10" = getelementptr i64, ptr %"args", i64 5
  %".11" = load i64, ptr %".10", align 8
  %"out.address" = inttoptr i64 %".11" to ptr
  %".12" = getelementptr i64, ptr %"args", i64 6
  %".13" = load i64, ptr %".12", align 8
  %".14" = getelementptr i64, ptr %"args", i64 7
  %".15" = load i64, ptr %".14", align 8
  %".16" = getelementptr i64, ptr %"args", i64 10
  %".17" = load i64, ptr %".16", align 8
  %".18" = trunc i64 %".17" to i16
  %k1 = bitcast i16 %".18" to half
  %k2 = fpext half %k1 to float
  %".19" = icmp ne i64 %".9", 2
  %".20" = ptrtoint ptr %"x.address" to i64
  %".21" = add i64 %".20", 2
  %".22" = sub i64 2, 1
  %".23" = mul i64 %".7", %".22"
  %".24" = icmp slt i64 %".23", 0
  %".25" = select  i1 %".24", i64 %".23", i64 0
  %".26" = add i64 %".20", %".25"
  %".27" = select  i1 %".24", i64 0, i64 %".23"
  %".28" = add i64 %".21", %".27"
  %".29" = sub i64 20, 1
  %".30" = mul i64 %".9", %".29"
  %".31" = icmp slt i64 %".30", 0
  %".32" = select  i1 %".31", i64 %".30", i64 0
  %".33" = add i64 %".26", %".32"
  %".34" = select  i1 %".31", i64 0, i64 %".30"
  %".35" = add i64 %".28", %".34"
  %".36" = ptrtoint ptr %"out.address" to i64
  %".37" = add i64 %".36", 2
  %".38" = sub i64 2, 1
  %".39" = mul i64 %".13", %".38"
  %".40" = icmp slt i64 %".39", 0
  %".41" = select  i1 %".40", i64 %".39", i64 0
  %".42" = add i64 %".36", %".41"
  %".43" = select  i1 %".40", i64 0, i64 %".39"
  %".44" = add i64 %".37", %".43"
  %".45" = sub i64 20, 1
  %".46" = mul i64 %".15", %".45"
  %".47" = icmp slt i64 %".46", 0
  %".48" = select  i1 %".47", i64 %".46", i64 0
  %".49" = add i64 %".42", %".48"
  %".50" = select  i1 %".47", i64 0, i64 %".46"
  %".51" = add i64 %".44", %".50"
  %".52" = icmp ult i64 %".33", %".51"
  %".53" = icmp ult i64 %".49", %".35"
  %".54" = and i1 %".52", %".53"
  %".55" = icmp eq ptr %"x.address", %"out.address"
  %".56" = icmp eq i64 %".7", %".13"
  %".57" = and i1 %".55", %".56"
  %".58" = icmp eq i64 %".9", %".15"
  %".59" = and i1 %".57", %".58"
  %".60" = xor i1 %".59", -1
  %".61" = and i1 %".54", %".60"
  %".62" = or i1 %".19", %".61"
  %".63" = getelementptr i8, ptr %"scratch", i64 0
  br i1 %".62", label %"entry.if", label %"entry.endif", !prof !0
entry.if:
  call void @"pto_wsp_copy_2"(ptr %".63", i64 40, i64 2, ptr %"x.address", i64 %".7", i64 %".9", i64 2, i64 20)
  br label %"entry.endif"
entry.endif:
  %".67" = select  i1 %".62", ptr %".63", ptr %"x.address"
  %".68" = select  i1 %".62", i64 40, i64 %".7"
  %".69" = select  i1 %".62", i64 2, i64 %".9"
  %".70" = icmp ne i64 %".15", 2
  %".71" = getelementptr i8, ptr %"scratch", i64 192
  %".72" = select  i1 %".70", ptr %".71", ptr %"out.address"
  %".73" = select  i1 %".70", i64 40, i64 %".13"
  %".74" = select  i1 %".70", i64 2, i64 %".15"
  br label %"loop"
loop:
  %".76" = phi  i64 [0, %"entry.endif"], [%".101", %"body"]
  %".77" = icmp slt i64 %".76", 2
  br i1 %".77", label %"body", label %"done"
body:
  %".79" = mul i64 %".76", %".68"
  %".80" = getelementptr i8, ptr %".67", i64 %".79"
  %".81" = getelementptr i16, ptr %".80", i64 0
  %".82" = load <16 x i16>, ptr %".81", align 2
  %k3 = bitcast <16 x i16> %".82" to <16 x half>
  %k4 = fpext <16 x half> %k3 to <16 x float>
  %".83" = insertelement <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, float %k2, i32 0
  %".84" = shufflevector <16 x float> %".83", <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, <16 x i32> <i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0>
  %k5 = fmul <16 x float> %k4, %".84"
  %k6 = fptrunc <16 x float> %k5 to <16 x half>
  %k7 = bitcast <16 x half> %k6 to <16 x i16>
  %k8 = bitcast <16 x i16> %k7 to <16 x half>
  %k9 = fpext <16 x half> %k8 to <16 x float>
  %".85" = mul i64 %".76", %".73"
  %".86" = getelementptr i8, ptr %".72", i64 %".85"
  %".87" = getelementptr i16, ptr %".86", i64 0
  %k10 = fptrunc <16 x float> %k9 to <16 x half>
  %k11 = bitcast <16 x half> %k10 to <16 x i16>
  store <16 x i16> %k11, ptr %".87", align 2
  %".89" = mul i64 %".76", %".68"
  %".90" = getelementptr i8, ptr %".67", i64 %".89"
  %".91" = getelementptr i16, ptr %".90", i64 16
  %".92" = call <16 x i16> @"llvm.masked.load.v16i16.p0"(ptr %".91", i32 2, <16 x i1> <i1 1, i1 1, i1 1, i1 1, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0>, <16 x i16> zeroinitializer)
  %k12 = bitcast <16 x i16> %".92" to <16 x half>
  %k13 = fpext <16 x half> %k12 to <16 x float>
  %".93" = insertelement <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, float %k2, i32 0
  %".94" = shufflevector <16 x float> %".93", <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, <16 x i32> <i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0>
  %k14 = fmul <16 x float> %k13, %".94"
  %k15 = fptrunc <16 x float> %k14 to <16 x half>
  %k16 = bitcast <16 x half> %k15 to <16 x i16>
  %k17 = bitcast <16 x i16> %k16 to <16 x half>
  %k18 = fpext <16 x half> %k17 to <16 x float>
  %".95" = mul i64 %".76", %".73"
  %".96" = getelementptr i8, ptr %".72", i64 %".95"
  %".97" = getelementptr i16, ptr %".96", i64 16
  %k19 = fptrunc <16 x float> %k18 to <16 x half>
  %k20 = bitcast <16 x half> %k19 to <16 x i16>
  %".98" = getelementptr i16, ptr %".97", i64 0
  %".99" = shufflevector <16 x i16> %k20, <16 x i16> %k20, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  store <4 x i16> %".99", ptr %".98", align 2
  %".101" = add nsw nuw i64 %".76", 1
  br label %"loop"
done:
  br i1 %".70", label %"done.if", label %"done.endif", !prof !0
done.if:
  %".104" = getelementptr i8, ptr %"scratch", i64 192
  call void @"pto_wsp_copy_2"(ptr %"out.address", i64 %".13", i64 %".15", ptr %".104", i64 40, i64 2, i64 2, i64 20)
  br label %"done.endif"
done.endif:
  ret void
}

declare void @"pto_wsp_copy_2"(ptr %".1", i64 %".2", i64 %".3", ptr %".4", i64 %".5", i64 %".6", i64 %".7", i64 %".8")

declare <16 x i16> @"llvm.masked.load.v16i16.p0"(ptr %".1", i32 %".2", <16 x i1> %".3", <16 x i16> %".4")

!0 = !{ !"branch_weights", i32 1, i32 99 }
define i64 @"kernel.scratch"() {
  ret i64 384
}
